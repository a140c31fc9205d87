// A gRPC service in Go, for the edge to stand in front of. It prints its port.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	parcelv1 "foreign/gen/parcel/v1"
)

type server struct {
	parcelv1.UnimplementedParcelServiceServer
}

func (server) GetParcel(ctx context.Context, in *parcelv1.GetParcelRequest) (*parcelv1.Parcel, error) {
	if in.Name == "parcels/none" {
		refused, err := status.New(codes.NotFound, "no such parcel").WithDetails(
			&errdetails.ErrorInfo{Reason: "LOST", Domain: "parcel.test"})
		if err != nil {
			return nil, err
		}
		return nil, refused.Err()
	}
	seen, _ := metadata.FromIncomingContext(ctx)
	return &parcelv1.Parcel{
		Name:        in.Name,
		WeightGrams: 9007199254740993,
		CreateTime:  timestamppb.New(timestamppb.Now().AsTime()),
		Stamps:      seen.Get("authorization"),
		To:          &parcelv1.Parcel_Locker{Locker: 7},
	}, nil
}

func (server) UpdateParcel(_ context.Context, in *parcelv1.UpdateParcelRequest) (*parcelv1.UpdateParcelRequest, error) {
	return in, nil
}

func (server) Track(in *parcelv1.TrackRequest, out parcelv1.ParcelService_TrackServer) error {
	for step := int32(1); step <= in.Count; step++ {
		if err := out.Send(&parcelv1.Position{Step: step, Place: strings.Repeat("x", 1000)}); err != nil {
			return err
		}
	}
	if in.Name == "parcels/lost" {
		return status.Error(codes.DataLoss, "the track ends here")
	}
	return nil
}

func (server) Weigh(in parcelv1.ParcelService_WeighServer) error {
	total := &parcelv1.Parcel{}
	for {
		parcel, err := in.Recv()
		if err == io.EOF {
			return in.SendAndClose(total)
		}
		if err != nil {
			return err
		}
		total.WeightGrams += parcel.WeightGrams
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	s := grpc.NewServer()
	parcelv1.RegisterParcelServiceServer(s, server{})
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(s.Serve(listener))
}
